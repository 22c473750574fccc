"""A judge behind an OpenAI-compatible endpoint (GPT, Gemini, Qwen-VL, vLLM): pictures and a rubric in, 0 to 4 out.

rubrics   what is asked: two rubrics of our own, and the form of the reply
replies   a reply's text -> its score; what is ambiguous or out of range is no score
cache     finished judgements on disk, one small file each
ledger    tokens, costs, and how much may still be spent
client    one request over the openai client: bounded in time and size, the key in no message
attempts  how one request can end
rounds    many questions at a time: retries, waits, the end of the budget
judge     VlmJudge, the reward: what is asked of whom, what is known already, and numbers for the log
"""

from cgrpo.rewards.vlm.judge import VlmJudge

__all__ = ["VlmJudge"]

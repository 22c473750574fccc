"""Method "grpo": Algorithm 1, a clipped surrogate on stochastic rollouts."""

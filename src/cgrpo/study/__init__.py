"""Asking people: which of two pictures keeps the subject and follows the prompt better (the paper's Figure 5), or how
well one picture does on a scale (its Table 6). Design, pages, storage and statistics; no model library anywhere."""

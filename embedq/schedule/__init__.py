"""Commands that workers run at times: which may be, and what became of them."""

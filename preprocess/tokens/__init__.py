"""How many tokens a record has, which of them `cutoff_len` would cut, and which text must not stand in one."""

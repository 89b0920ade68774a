"""Reference models that the shipped configs name by `_target_`; nothing imports them."""

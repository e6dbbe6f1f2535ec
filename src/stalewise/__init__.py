"""How many workers, what staleness, what learning rate, how long, and when to stay synchronous."""

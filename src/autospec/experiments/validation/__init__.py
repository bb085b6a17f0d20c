"""How often each test finds a difference where there is none, and where there is one: it trains, tests and counts."""

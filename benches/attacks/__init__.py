"""The parts of benches/hostile: the server under attack, its honest clients, the attackers, and what is written of it all.

Attackers come from 127.0.0.2 and honest clients from 127.0.0.1, so that a bound by address strikes whom it should.
"""

ATTACKER = "127.0.0.2"
HONEST = "127.0.0.1"
NEWCOMER = "127.0.0.3"

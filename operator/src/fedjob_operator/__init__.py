"""The operator, and the decision core that it shares with ``fedjob run``."""

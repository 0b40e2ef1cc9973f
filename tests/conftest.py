"""What all tests share: none depends on how fast the machine is."""

from hypothesis import HealthCheck, settings

ANY_MACHINE = "any machine"

settings.register_profile(ANY_MACHINE, settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(ANY_MACHINE)

"""What root may do and others may not: tests of permissions run as root too, in containers."""

import ctypes

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


def give_up() -> None:
    """Take from this process, and from all that it starts, the power to ignore the permissions of files."""
    libc = ctypes.CDLL(None, use_errno=True)
    powers = (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH)
    for power in powers:
        libc.prctl(_PR_CAPBSET_DROP, power, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    # Effective, permitted and inheritable ones: the first 32, and as many again.
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0, ctypes.get_errno()
    for place in range(3):
        held[place] &= ~sum(1 << power for power in powers)
    assert libc.capset(header, held) == 0, ctypes.get_errno()

"""Everything that a path promises, before and after a session has left its port."""

from tests.transport.contract.test_futures import *  # noqa: F403
from tests.transport.contract.test_refusals import *  # noqa: F403
from tests.transport.contract.test_transfers import *  # noqa: F403

# It counts descriptors while the ports, which are the fixture's here, are still open.
del test_close_fails_what_is_outstanding  # noqa: F821

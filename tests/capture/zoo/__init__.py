"""Small modules that are awkward to capture, each with the inputs that its spec would name.

`ZOO` maps a name to a function that returns the module and its inputs; every one of them must
compile into a plan that equals eager execution bit for bit at several sizes.
"""

from tests.capture.zoo import modules, operators, outputs, sizes, writes
from tests.capture.zoo.cases import DIMS, ZOO

__all__ = ["DIMS", "ZOO", "modules", "operators", "outputs", "sizes", "writes"]

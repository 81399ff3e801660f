"""What this library takes from inside Keras, which has no public name for it; nothing else imports `keras.src`.

Where a release of Keras moves one of these, this is the file to mend.
"""

from __future__ import annotations

import sys

# The public name that an optimizer is saved by: on PyTorch its class has none, and another backend cannot load it.
from keras.src.api_export import REGISTERED_OBJS_TO_NAMES

# What Keras keeps for a thread, by name; see the names below.
from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute

# A layer's call reads the mask of its input from the tensor itself.
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

# Within such a scope variables are not drawn, and hold what the scope gives them.
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope

# The dtype that a call casts its variables to, and the list of those that are not drawn yet.
from keras.src.backend.common.variables import get_autocast_scope, register_uninitialized_variable

# Which initializers draw, and the sizes by which they scale.
from keras.src.initializers.random_initializers import RandomInitializer, compute_fans

# A part of a graph as a function, without its being a model.
from keras.src.ops.function import Function

# On each backend the class in which Keras's optimizers are written, without what a backend puts over it.
from keras.src.optimizers.base_optimizer import BaseOptimizer

# The losses of a compiled model, with their weights, as one function.
from keras.src.trainers.compile_utils import CompileLoss

# The program of `model.summary()`, which has no place for what a layer says of itself but the number of its weights.
from keras.src.utils import summary_utils

# Keras's own way of printing, which its users can turn to a log.
from keras.src.utils.io_utils import print_msg

# Names of what Keras keeps for a thread.
UNINITIALIZED = "uninitialized_variables"  # what the end of a stateless scope draws
NAME_COUNTS = "object_name_uids"  # how often a name was given
WRITTEN, READ = "shared_objects/id_to_config_map", "shared_objects/id_to_obj_map"  # layers that a file has twice
LEGACY_FORMAT = "use_legacy_config"  # whether the older format is written or read
GLOBAL_SEED = "global_seed_generator"  # what draws where nobody gives a seed

__all__ = [
    "GLOBAL_SEED",
    "LEGACY_FORMAT",
    "NAME_COUNTS",
    "READ",
    "REGISTERED_OBJS_TO_NAMES",
    "UNINITIALIZED",
    "WRITTEN",
    "BaseOptimizer",
    "CompileLoss",
    "Function",
    "RandomInitializer",
    "called_by_summary",
    "compute_fans",
    "get_autocast_scope",
    "get_global_attribute",
    "get_keras_mask",
    "get_stateless_scope",
    "in_stateless_scope",
    "print_msg",
    "register_uninitialized_variable",
    "set_global_attribute",
    "set_keras_mask",
]


def called_by_summary() -> bool:
    """Returns whether `model.summary()` itself called the function that calls this one."""
    return sys._getframe(2).f_globals is vars(summary_utils)

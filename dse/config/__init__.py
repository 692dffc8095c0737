"""Studies and search spaces: loads TOML files as frozen, validated objects."""

from dse.config.base import Frozen
from dse.config.baselines import BaselinesConfig
from dse.config.budgets import budget_bytes, describe_budgets, with_budgets
from dse.config.data import IMAGENET_MEAN, IMAGENET_STD, DataConfig
from dse.config.joint import JointConfig, Range
from dse.config.load import load_space, load_study, study_toml, with_flags
from dse.config.network import NetworkConfig, PretrainConfig
from dse.config.proxy import ProxyConfig
from dse.config.recovery import RecoveryConfig
from dse.config.reference import ReferenceConfig
from dse.config.search import SearchConfig
from dse.config.space import GroupChoice, GroupRule, SpaceConfig, resolve_space
from dse.config.study import Study
from dse.config.task import TaskConfig
from dse.config.training import TrainingConfig

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BaselinesConfig",
    "DataConfig",
    "Frozen",
    "GroupChoice",
    "GroupRule",
    "JointConfig",
    "NetworkConfig",
    "PretrainConfig",
    "ProxyConfig",
    "Range",
    "RecoveryConfig",
    "ReferenceConfig",
    "SearchConfig",
    "SpaceConfig",
    "Study",
    "TaskConfig",
    "TrainingConfig",
    "budget_bytes",
    "describe_budgets",
    "load_space",
    "load_study",
    "resolve_space",
    "study_toml",
    "with_budgets",
    "with_flags",
]

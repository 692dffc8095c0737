"""Drafts a study for a user's data and a network."""

from dse.draft.draft import Draft, draft_study
from dse.draft.given import Given

__all__ = ["Draft", "Given", "draft_study"]

"""Drafts a study for a folder of images and a network."""

from dse.draft.draft import Draft, draft_study

__all__ = ["Draft", "draft_study"]

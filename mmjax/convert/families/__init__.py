"""A file for each family of released models; `docs/convert.md` adds one."""

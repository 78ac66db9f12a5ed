"""One module a published dataset, holding it as `SPEC`."""

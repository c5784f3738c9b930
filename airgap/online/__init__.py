"""With internet: resolve, fetch, pack; and registries that are reached over HTTP."""

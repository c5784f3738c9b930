"""airgap: multi-platform Docker builds behind an air gap. The map of the package:

    __main__    `airgap` and `python -m airgap`
    cli         parse, wire the collaborators, one verb, exit code; the only place where errors become codes
    console     people (lines, bars) and machines (JSON lines); the only writer to stdout and stderr
    errors      every error a person sees, and its exit code
    progress    how a verb tells what it is doing, without knowing who listens
    document    structured texts: bounded, typed, precise about where they are wrong
    yamltext    YAML, strictly for manifests and loosely for others' files
    oci         OCI's words as values: digest, platform, reference, descriptor, index, manifest
    elf         whose machine code a file is, and the smallest program that proves it runs
    manifest    what a site asks for
    lock        exactly which bytes that is, and who vouched for them
    upstreams   how upstreams name their files, versions and checksums
    steps       the closed vocabulary of reversible changes to a host
    kinds       engine, plugin, emulation, image, registry, builder, runtime: what each wants fetched, and does to a host
    projects    what a project's Dockerfiles, compose and bake files need, and what of it a site lacks
    bundle      what travels: store, frames, layout, the tar and how it is read
    machine     this machine's programs, its Docker engine, one question to a registry
    online      with internet: resolve, fetch, pack; push to a registry of the site
    offline     on the host: preflight, plan, apply, journal, prove, status
    install.sh.in   the first step on a bare host, filled in by online.installer

Imports go down only; pyproject.toml has the layers, tests/test_rules.py holds them.
"""

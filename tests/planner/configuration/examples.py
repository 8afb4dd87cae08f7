"""Valid configurations: each key, in each of the ways in which it may be written."""

VALID = (
    "version: 1\njobs: {a: {steps: [make]}}\n",
    'version: "1"\njobs: {"a b": {steps: [{run: make}]}}\n',
    """
    version: 1
    env: {A: 1, B: true, C: "", D: 1.50}
    defaults: {labels: linux, timeout: 90, retries: 0, workdir: app}
    full_run: {branches: [main, "release/*"], labels: [full-ci], schedule: false}
    documentation: [docs/**, "!docs/api/**"]
    notify: [{channel: team}, {channel: ops.night, on: [failed, recovered, canceled], branches: [main, "release/*"]}]
    jobs:
      build:
        steps:
          - make
          - {name: Pack, run: make pack, env: {FAST: false}, workdir: dist}
        env: {X: y}
        workdir: src
        timeout: 1h30m
        retries: "2"
        policy: required
        priority: -5
        labels: [linux, "${{ matrix.cpu }}"]
        matrix: {cpu: [x86, arm], exclude: [{cpu: arm}], include: [{cpu: riscv, slow: true}]}
        artifacts: [{name: "wheel ${{ matrix.cpu }}", paths: dist/*.whl}]
        caches: [{key: "pip-${{ hash('*.lock') }}", paths: [.cache]}]
        reports: [out/*.xml]
        concurrency: build-${{ matrix.cpu }}
      test:
        needs: build
        steps: [pytest]
        allow_failure: true
        paths: src/**
        paths_ignore: ["*.md"]
        projects: [services/api, "python:libs/x"]
        timeout: 90s
    """,
    "version: 1\nfull_run: {}\njobs: {a: {steps: [1, true], needs: [], labels: [], artifacts: [], caches: []}}\n",
    "version: 1\nenv: {}\ndefaults: {}\njobs: {a: {steps: [t], matrix: {v: 3.10}, reports: a.xml, projects: .}}\n",
    "version: 1\nnotify: [{channel: 1, on: succeeded, branches: main}]\njobs: {a: {steps: [t]}}\n",
    "version: 1\nfull_run: {branches: main, labels: [], schedule: 'true'}\njobs: {a: {steps: [t], policy: required}}\n",
)

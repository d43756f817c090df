"""What a backlog will cost before anything is bought: texts, tokens, money, hours, disk.

`texts` counts distinct texts, `speed` and `disk` are what the rest is reckoned by, `plan` is the
sum in the form that screens and `--json` print; these are pure. `planner` asks the log store, the
cache and the ledger for what goes in, `confirming` holds a run to ENRICH_CONFIRM_ABOVE_USD.
docs/plan.md says what each number is worth.
"""

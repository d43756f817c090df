"""What Flower shows of the enrichment: a page, the metrics, and the rules for opening the port.

`environment` is read by every process, so nothing here imports Flower until `mounting` does, which
flowerconfig.py calls. All numbers come from `enrich.status.report`.
"""

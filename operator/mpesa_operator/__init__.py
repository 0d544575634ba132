"""The kopf operator that turns MerchantConfig resources into merchant files.

`plan.py` decides, `reconcile.py` carries out, `cluster.py` talks to Kubernetes, `handlers.py` is
where kopf calls us. Why: docs/decisions/0008-operator.md.
"""

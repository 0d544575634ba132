"""The kopf operator that turns MerchantConfig resources into merchant files.

A placeholder: `docs/architecture.md` describes what comes here. The package exists now so that the
distribution, the import contracts and the source root are settled.
"""

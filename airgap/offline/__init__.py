"""The host without network: preflight, plan, apply, prove, and the way back."""

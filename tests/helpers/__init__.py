"""What several tests share: small data sets, tiny runs, the reference vectors' formula."""

"""What a test suite built on Genie imports. Light on purpose: pytest loads it in every run."""

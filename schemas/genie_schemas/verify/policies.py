"""Stage 6: policies exist, mean something, and are used by name."""

from __future__ import annotations

from genie_schemas.errors import CODES, GenieError
from genie_schemas.plan import ExecutionPlan
from genie_schemas.verify._report import problem


def check_policies(plan: ExecutionPlan) -> list[GenieError]:
    """Every step's policy exists; `retry_on` names known codes."""
    errors = []
    for step in plan.steps:
        if step.policy not in plan.policies:
            message = f"there is no policy {step.policy!r}"
            errors.append(problem("GEN0312", f"steps.{step.id}.policy", message))
    for name, policy in plan.policies.items():
        for code in policy.retry_on:
            if code not in CODES:
                message = f"{code} is no error code"
                errors.append(problem("GEN0312", f"policies.{name}.retry_on", message))
    return errors

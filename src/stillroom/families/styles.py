"""The three styles of a trace, and the system prompts that ask for them."""

from __future__ import annotations

CAREFUL = "careful"
BRIEF = "brief"
PLAN = "plan"
STYLES = (CAREFUL, BRIEF, PLAN)

SYSTEM_PROMPTS = {
    CAREFUL: "Think carefully, digit by digit.",
    BRIEF: "Think briefly.",
    PLAN: "Make a plan first, then carry it out.",
}
"""Style to system prompt. Without a system prompt a model mixes the styles."""

OPENINGS = {
    CAREFUL: (
        "Let me be careful here.",
        "Step by step, then.",
        "I will take this slowly.",
        "Let me work through it.",
        "Careful now.",
        "Let me write out each step.",
        "One small step at a time.",
        "Okay, let me see.",
    ),
    BRIEF: (
        "Quickly:",
        "In short:",
        "Just the steps:",
        "This is short.",
        "Let me see:",
        "Okay:",
        "Well:",
        "Directly:",
    ),
    PLAN: (
        "Plan: {plan}.",
        "My plan: {plan}.",
        "The plan is: {plan}.",
        "First a plan: {plan}.",
        "What to do: {plan}.",
        "The way to go: {plan}.",
    ),
}

CLOSINGS = (
    "This gives {answer}.",
    "The result is {answer}.",
    "So we get {answer}.",
    "Working it out gives {answer}.",
    "It comes to {answer}.",
    "The steps lead to {answer}.",
    "We end up with {answer}.",
    "",
)

ANSWER = "The answer is \\boxed{{{answer}}}."

"""How much image and language each matter to a model: interventions on either, scores, tests and a verdict.

Nothing here knows what a model is. A `suite.Segment` turns images and prompts into probability maps.
"""

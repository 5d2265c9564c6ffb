"""May this be accepted, for whom, in what shape. Shared by everything that brings mail in."""

"""The pages that raters see. Only this room, serving and its own tests know a web framework."""

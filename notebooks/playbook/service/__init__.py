"""The reference application: what the plan says of an application, shown on real requests over HTTP."""

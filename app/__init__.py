"""The original's place for the application, so that ``uvicorn app.main:app`` goes on working."""

"""What the applications of the status page and of the control room share: files of ours, and errors in one shape."""

from __future__ import annotations

import logging
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

log = logging.getLogger(__name__)


class Static(StaticFiles):
    """Our own files: their address changes with them, so browsers may keep them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response


class Answers:
    """Errors as pages or as JSON, all in one shape. A subclass knows its own errors and pages."""

    #: What a page says of a fault of ours.
    fault_sentence = "The page could not be made: a fault of ours, and its log has the details."

    def _answer(self, request: Request, status: int, error: str, reason: str) -> Response:
        raise NotImplementedError

    def query(self, request: Request, error: Exception) -> Response:
        """A number that is none, a text that is too long."""
        assert isinstance(error, RequestValidationError)
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return self._answer(request, 400, "bad query", "; ".join(faults))

    def fault(self, request: Request, error: Exception) -> Response:
        """A fault of ours: the log has it all, the page says so."""
        log.error("a fault in the page %s", request.scope.get("path"), exc_info=error)
        return self._answer(request, 500, "fault", self.fault_sentence)

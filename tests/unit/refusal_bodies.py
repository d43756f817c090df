"""Bodies with which embeddings services refuse, as their users reported them or as they were seen.

`SEEN` is provider, status, body and what it means. Texts that were quoted are left out.
"""

from __future__ import annotations

from typing import Any

from enrich.embedding.refusals import Meaning as M


def openai(message: str, kind: str | None = None, code: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def gemini(code: int, status: str, message: str, *details: dict[str, Any]) -> list[Any]:
    """Through its OpenAI interface it wraps the error into a list."""
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return [{"error": error}]


def page(title: str, text: str) -> str:
    return f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>{text}</body></html>"


def tei(message: str, kind: str) -> dict[str, Any]:
    """Its OpenAI route names the kind twice."""
    return {"message": message, "type": kind}


SEEN: list[tuple[str, int, Any, M]] = [
    # -- OpenAI
    (
        "OpenAI",
        401,
        openai(
            "Incorrect API key provided: sk-ab***yz. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            "invalid_request_error",
            "invalid_api_key",
        ),
        M.KEY,
    ),
    (
        "OpenAI",
        429,
        openai(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
        M.QUOTA,
    ),
    (
        "OpenAI",
        429,
        openai(
            "Rate limit reached for text-embedding-3-large in organization org-x on tokens per min "
            "(TPM): Limit 1000000, Used 999000, Requested 5000. Please try again in 240ms.",
            "tokens",
            "rate_limit_exceeded",
        ),
        M.BUSY,
    ),
    (
        "OpenAI",
        400,
        openai("Billing hard limit has been reached", "x", "billing_hard_limit_reached"),
        M.QUOTA,
    ),
    (
        "OpenAI",
        404,
        openai(
            "The model `nope` does not exist or you do not have access to it.",
            "invalid_request_error",
            "model_not_found",
        ),
        M.MODEL,
    ),
    (
        "OpenAI",
        403,
        openai(
            "Country, region, or territory not supported",
            "request_forbidden",
            "unsupported_country_region_territory",
        ),
        M.FORBIDDEN,
    ),
    (
        "OpenAI",
        400,
        openai(
            "This model's maximum context length is 8192 tokens, however you requested 9000 tokens "
            "(9000 in your prompt; 0 for the completion). Please reduce your prompt.",
            "invalid_request_error",
        ),
        M.TOO_LONG,
    ),
    (
        "OpenAI",
        400,
        openai(
            "Requested 330000 tokens, max 300000 tokens per request",
            "max_tokens_per_request",
            "max_tokens_per_request",
        ),
        M.TOO_LONG,
    ),
    (
        "OpenAI",
        400,
        openai(
            "Invalid 'input': array too long. Expected an array with maximum length 2048, but got "
            "an array with length 3000 instead.",
            "invalid_request_error",
            "array_above_max_length",
        ),
        M.TOO_MANY,
    ),
    ("OpenAI", 503, openai("The engine is currently overloaded", "server_error"), M.TROUBLE),
    # -- Azure
    (
        "Azure",
        401,
        {
            "error": {
                "code": "401",
                "message": "Access denied due to invalid subscription key or wrong API endpoint. "
                "Make sure to provide a valid key for an active subscription and use a correct "
                "regional API endpoint for your resource.",
            }
        },
        M.KEY,
    ),
    (
        "Azure",
        404,
        {
            "error": {
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist.",
            }
        },
        M.MODEL,
    ),
    ("Azure", 404, {"error": {"code": "404", "message": "Resource not found"}}, M.MODEL),
    (
        "Azure",
        400,
        {
            "error": {
                "code": "BadRequest",
                "message": "Missing required query parameter: api-version",
            }
        },
        M.VERSION,
    ),
    (
        "Azure",
        400,
        {
            "error": {
                "code": "OperationNotSupported",
                "message": "The embeddings operation does not work with the specified model, "
                "gpt-4.",
            }
        },
        M.MODEL,
    ),
    (
        "Azure",
        400,
        openai(
            "Too many inputs. The max number of inputs is 16. We hope to increase the number of "
            "inputs per request soon.",
            "invalid_request_error",
        ),
        M.TOO_MANY,
    ),
    # -- Gemini
    (
        "Gemini",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            },
        ),
        M.KEY,
    ),
    (
        "Gemini",
        400,
        gemini(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."),
        M.KEY,
    ),
    (
        "Gemini",
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "35s"},
        ),
        M.BUSY,
    ),
    (
        "Gemini",
        403,
        gemini(403, "PERMISSION_DENIED", "Generative Language API has not been used in project 1"),
        M.FORBIDDEN,
    ),
    (
        "Gemini",
        404,
        gemini(404, "NOT_FOUND", "models/nope is not found for API version v1main"),
        M.MODEL,
    ),
    (
        "Gemini",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch",
        ),
        M.TOO_MANY,
    ),
    (
        "Gemini",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (9000) exceeds the maximum number of tokens allowed (2048).",
        ),
        M.TOO_LONG,
    ),
    # -- Mistral
    ("Mistral", 401, {"detail": "Unauthorized"}, M.KEY),
    ("Mistral", 401, {"message": "Unauthorized", "request_id": "1"}, M.KEY),
    (
        "Mistral",
        400,
        {
            "object": "error",
            "message": "Too many tokens in batch. Max is 16384 got 17555",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
        M.TOO_LONG,
    ),
    (
        "Mistral",
        400,
        {
            "object": "error",
            "message": "Too many inputs in request, split into more batches.",
            "type": "invalid_request_error",
            "param": None,
            "code": "3210",
        },
        M.TOO_MANY,
    ),
    (
        "Mistral",
        400,
        {
            "object": "error",
            "message": "Invalid model: nope",
            "type": "invalid_model",
            "code": "1500",
        },
        M.MODEL,
    ),
    # -- Cohere
    ("Cohere", 401, {"message": "invalid api token"}, M.KEY),
    ("Cohere", 401, {"message": "no api key supplied"}, M.KEY),
    (
        "Cohere",
        400,
        {"message": "invalid request: total number of texts must be at most 96 - received 256"},
        M.TOO_MANY,
    ),
    (
        "Cohere",
        429,
        {"message": "You are using a Trial key, which is limited to 100 API calls / minute."},
        M.BUSY,
    ),
    (
        "Cohere",
        404,
        {"message": "model 'nope' not found, make sure the correct model ID was used"},
        M.MODEL,
    ),
    # -- Voyage
    ("Voyage", 401, {"detail": "Provided API key is invalid."}, M.KEY),
    (
        "Voyage",
        400,
        {
            "detail": "Model nope is not supported. Supported models are ['voyage-3', "
            "'voyage-3-lite']."
        },
        M.MODEL,
    ),
    (
        "Voyage",
        400,
        {
            "detail": "Request to model 'voyage-3' failed. The max allowed tokens per submitted "
            "batch is 120000. Your batch has 150000 tokens after truncation."
        },
        M.TOO_LONG,
    ),
    (
        "Voyage",
        400,
        {"detail": "The batch size limit is 1000. Your batch size is 2000."},
        M.TOO_MANY,
    ),
    (
        "Voyage",
        429,
        {
            "detail": "You have not yet added your payment method in the billing page and will "
            "have reduced rate limits of 3 RPM and 10K TPM."
        },
        M.BUSY,
    ),
    # -- Jina
    ("Jina", 401, {"detail": "Invalid API key"}, M.KEY),
    (
        "Jina",
        402,
        {"detail": "Account balance not enough to run this query, please recharge."},
        M.QUOTA,
    ),
    (
        "Jina",
        403,
        {"code": 403, "name": "INSUFFICIENT_BALANCE", "message": "Insufficient balance"},
        M.QUOTA,
    ),
    (
        "Jina",
        400,
        {
            "detail": "[RID: ec4] Validation error: 'body -> jina-embeddings-v4' Each input list "
            "can contain at most 512 items.. Field errors: : Invalid value"
        },
        M.TOO_MANY,
    ),
    # -- OpenRouter
    ("OpenRouter", 401, {"error": {"message": "No auth credentials found", "code": 401}}, M.KEY),
    ("OpenRouter", 401, {"error": {"message": "User not found.", "code": 401}}, M.KEY),
    (
        "OpenRouter",
        402,
        {
            "error": {
                "message": "Insufficient credits. Add more using "
                "https://openrouter.ai/settings/credits",
                "code": 402,
            }
        },
        M.QUOTA,
    ),
    (
        "OpenRouter",
        400,
        {"error": {"message": "nope is not a valid model ID", "code": 400}},
        M.MODEL,
    ),
    ("OpenRouter", 200, {"error": {"message": "Provider returned error", "code": 400}}, M.TEXT),
    ("OpenRouter", 200, {"error": {"message": "Provider returned error", "code": 429}}, M.BUSY),
    ("OpenRouter", 200, {"error": {"message": "Provider returned error"}}, M.TROUBLE),
    # -- vLLM
    ("vLLM", 401, {"error": "Unauthorized"}, M.KEY),
    (
        "vLLM",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 512 tokens. However, you requested "
            "825 tokens in the input for embedding generation. Please reduce the length of the "
            "input.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        M.TOO_LONG,
    ),
    (
        "vLLM",
        404,
        {
            "error": {
                "message": "The model `nope` does not exist.",
                "type": "NotFoundError",
                "param": "model",
                "code": 404,
            }
        },
        M.MODEL,
    ),
    (
        "vLLM",
        400,
        {
            "object": "error",
            "message": "The model does not support Embeddings API",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        M.MODEL,
    ),
    # -- TEI
    (
        "TEI",
        413,
        tei(
            "Input validation error: `inputs` must have less than 512 tokens. Given: 534",
            "Validation",
        ),
        M.TOO_LONG,
    ),
    ("TEI", 422, tei("batch size 64 > maximum allowed batch size 32", "Validation"), M.TOO_MANY),
    ("TEI", 413, tei("batch size 64 > maximum allowed batch size 32", "Validation"), M.TOO_MANY),
    ("TEI", 413, "Failed to buffer the request body: length limit exceeded", M.TOO_LONG),
    ("TEI", 424, tei("Inference failed", "Backend"), M.TROUBLE),
    ("TEI", 429, tei("Model is overloaded", "Overloaded"), M.BUSY),
    # -- Ollama
    (
        "Ollama",
        400,
        openai("the input length exceeds the context length", "invalid_request_error"),
        M.TOO_LONG,
    ),
    (
        "Ollama",
        404,
        openai('model "nope" not found, try pulling it first', "not_found_error"),
        M.MODEL,
    ),
    (
        "Ollama",
        500,
        openai("failed to encode response: json: unsupported value: NaN", "api_error"),
        M.TROUBLE,
    ),
    ("Ollama", 400, openai("this model does not support embeddings", "api_error"), M.MODEL),
    # -- llama.cpp
    (
        "llama.cpp",
        401,
        {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        M.KEY,
    ),
    (
        "llama.cpp",
        500,
        {
            "error": {
                "code": 500,
                "message": "input (825 tokens) is too large to process. increase the physical "
                "batch size (current batch size: 512)",
                "type": "server_error",
            }
        },
        M.TOO_LONG,
    ),
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "request (825 tokens) exceeds the available context size (512 tokens), "
                "try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 825,
                "n_ctx": 512,
            }
        },
        M.TOO_LONG,
    ),
    (
        "llama.cpp",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        M.LOADING,
    ),
    (
        "llama.cpp",
        501,
        {
            "error": {
                "code": 501,
                "message": "This server does not support embeddings. Start it with `--embeddings`",
                "type": "not_supported_error",
            }
        },
        M.MODEL,
    ),
    # -- LM Studio
    (
        "LM Studio",
        400,
        {
            "error": "No models loaded. Please load a model in the developer page or use the 'lms "
            "load' command."
        },
        M.MODEL,
    ),
    (
        "LM Studio",
        404,
        openai(
            'Failed to load model "e5". Error: Model is not embedding.',
            "invalid_request_error",
            "model_not_found",
        ),
        M.MODEL,
    ),
    ("LM Studio", 200, {"error": "Unexpected endpoint or method. (POST /embeddings)"}, M.MODEL),
    # -- LiteLLM
    ("LiteLLM", 400, openai("No connected db.", "no_db_connection", "400"), M.KEY),
    (
        "LiteLLM",
        401,
        openai(
            "Authentication Error, Invalid proxy server token passed. Received API Key = sk-...g",
            "token_not_found_in_db",
            "401",
        ),
        M.KEY,
    ),
    (
        "LiteLLM",
        400,
        openai(
            "Budget has been exceeded! Current cost: 10.01, Max budget: 10.0",
            "budget_exceeded",
            "400",
        ),
        M.QUOTA,
    ),
    (
        "LiteLLM",
        429,
        openai(
            "litellm.RateLimitError: RateLimitError: OpenAIException - You exceeded your current "
            "quota, please check your plan and billing details.",
            "insufficient_quota",
            "429",
        ),
        M.QUOTA,
    ),
    # As it hands on what OpenAI says (LiteLLM 1.108).
    (
        "LiteLLM",
        429,
        openai(
            "litellm.RateLimitError: RateLimitError: OpenAIException - Error code: 429 - You "
            "exceeded your current quota, please check your plan and billing details.\n\nLiteLLM: "
            "model group 'm' failed with the error above. No fallback was attempted.",
            "throttling_error",
            "429",
        ),
        M.QUOTA,
    ),
    (
        "LiteLLM",
        401,
        openai(
            "litellm.AuthenticationError: AuthenticationError: OpenAIException - Error code: 401 - "
            "Incorrect API key provided",
            "authentication_error",
            "401",
        ),
        M.GATEWAY_KEY,
    ),
    (
        "LiteLLM",
        429,
        openai(
            "No deployments available for selected model, Try again in 5 seconds. All deployments "
            "for selected model are in cooldown.",
            "all_deployments_in_cooldown",
            "429",
        ),
        M.BUSY,
    ),
    (
        "LiteLLM",
        400,
        openai(
            "litellm.ContextWindowExceededError: litellm.BadRequestError: "
            "ContextWindowExceededError: OpenAIException - Error code: 400 - This model's maximum "
            "context length is 8192 tokens, however you requested 9000 tokens",
            "invalid_request_error",
            "400",
        ),
        M.TOO_LONG,
    ),
    (
        "LiteLLM",
        500,
        openai(
            "litellm.InternalServerError: InternalServerError: OpenAIException - Error code: 500",
            "internal_server_error",
            "500",
        ),
        M.TROUBLE,
    ),
    (
        "LiteLLM",
        403,
        openai(
            "litellm.APIError: APIError: OpenAIException - Error code: 403",
            "permission_error",
            "403",
        ),
        M.FORBIDDEN,
    ),
    (
        "LiteLLM",
        408,
        openai("litellm.Timeout: APITimeoutError - Request timed out.", None, "408"),
        M.TROUBLE,
    ),
    (
        "LiteLLM",
        400,
        openai(
            "/embeddings: Invalid model name passed in model=nope. Call `/v1/models` to view "
            "available models for your key.",
            "invalid_request_error",
            "400",
        ),
        M.MODEL,
    ),
    (
        "LiteLLM",
        400,
        openai(
            "litellm.ContextWindowExceededError: litellm.BadRequestError: "
            "ContextWindowExceededError: OpenAIException - the prompt is too long",
            None,
            "400",
        ),
        M.TOO_LONG,
    ),
    # -- proxies and firewalls
    (
        "Cloudflare",
        403,
        page("Attention Required! | Cloudflare", "<h1>Sorry, you have been blocked</h1>"),
        M.BLOCKED,
    ),
    (
        "AWS WAF, CloudFront",
        403,
        page("ERROR: The request could not be satisfied", "Request blocked."),
        M.BLOCKED,
    ),
    (
        "F5",
        200,
        page("Request Rejected", "The requested URL was rejected. Your support ID is: 1"),
        M.BLOCKED,
    ),
    ("nginx", 403, page("403 Forbidden", "<center>nginx/1.24</center>"), M.PROXY),
    ("squid", 407, page("ERROR: Cache Access Denied", "Cache Access Denied."), M.PROXY_LOGIN),
    ("nginx", 401, page("401 Authorization Required", "nginx"), M.PROXY_LOGIN),
    ("nginx", 502, page("502 Bad Gateway", "<center>nginx/1.24</center>"), M.TROUBLE),
    ("nginx", 413, page("413 Request Entity Too Large", "nginx"), M.TOO_LONG),
    ("nginx", 404, page("404 Not Found", "nginx"), M.PATH),
]

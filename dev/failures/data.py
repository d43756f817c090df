"""Failures of data that is not what the code was written for: documents that don't parse, values of
the wrong type, texts in the wrong encoding, archives and signatures that are broken.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import csv
import gzip
import hmac
import importlib
import io
import json
import logging
import pickle
import re
import struct
import tomllib
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import yaml
from pydantic import BaseModel, Field, ValidationError

from dev.failures.kinds import CUSTOMER, ORDER, SKU, Site, failure


class Currency(Enum):
    EUR = "EUR"
    KRW = "KRW"


class Address(BaseModel):
    street: str
    postcode: str = Field(pattern=r"^\d{5}$")


class Order(BaseModel):
    quantity: int = Field(gt=0)
    address: Address


class Shipment(msgspec.Struct):
    order: str
    weight_grams: int


class SignatureMismatch(Exception):
    """A webhook's body does not match its signature."""


class TokenExpired(Exception):
    """A sign-in token is past its expiry."""


# Documents that don't parse


@failure("json-decode", "order-api", "orders.import")
def parse_order(log: logging.Logger, site: Site) -> None:
    try:
        json.loads('{"lines": [{"sku": "A-100", "quantity": 2,}]}')
    except json.JSONDecodeError:
        log.exception("Order message is not valid JSON")


@failure("json-serialise", "billing", "billing.invoices")
def write_invoice(log: logging.Logger, site: Site) -> None:
    try:
        json.dumps({"order": ORDER, "total": Decimal("19.90")})
    except TypeError:
        log.exception("Invoice for order %s could not be written as JSON", ORDER)


@failure("json-too-deep", "order-api", "orders.import")
def parse_hostile_order(log: logging.Logger, site: Site) -> None:
    try:
        json.loads("[" * 100_000)
    except RecursionError:
        log.exception("Order message is nested too deeply")


@failure("yaml-syntax", "pricing", "pricing.rules")
def load_rules(log: logging.Logger, site: Site) -> None:
    try:
        yaml.safe_load("discounts:\n  - code: SPRING\n    percent: 10\n   until: 2026-05-31\n")
    except yaml.YAMLError:
        log.exception("Discount rules could not be loaded")


@failure("xml-parse", "shipping", "shipping.labels")
def parse_label(log: logging.Logger, site: Site) -> None:
    try:
        ElementTree.fromstring("<label><to>Kim & Sons</to></label>")
    except ElementTree.ParseError:
        log.exception("Carrier sent a label that is not well-formed XML")


@failure("toml-decode", "pricing", "pricing.settings")
def load_settings(log: logging.Logger, site: Site) -> None:
    try:
        tomllib.loads("[rounding]\nmode = half-even\n")
    except tomllib.TOMLDecodeError:
        log.exception("Settings file is not valid TOML")


@failure("ini-missing-section", "report-worker", "reports.settings")
def read_schedule(log: logging.Logger, site: Site) -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[daily]\nhour = 6\n")
    try:
        parser.getint("weekly", "hour")
    except configparser.NoSectionError:
        log.exception("Weekly report has no schedule")


@failure("csv-field-size", "catalog", "catalog.import")
def read_supplier_file(log: logging.Logger, site: Site) -> None:
    try:
        list(csv.reader(io.StringIO("sku;text\n" + "x" * 200_000)))
    except csv.Error:
        log.exception("File of supplier %s has an endless field", "{supplier}")


@failure("pydantic-validation", "order-api", "orders.api")
def accept_order(log: logging.Logger, site: Site) -> None:
    try:
        Order.model_validate({"quantity": 0, "address": {"street": "Main St", "postcode": "K1A"}})
    except ValidationError:
        log.exception("Order was rejected: its fields are not valid")


@failure("msgspec-validation", "shipping", "shipping.events")
def accept_shipment(log: logging.Logger, site: Site) -> None:
    try:
        msgspec.json.decode(b'{"order":"1","weight_grams":"heavy"}', type=Shipment)
    except msgspec.ValidationError:
        log.exception("Shipment event has a weight that is not a number")


@failure("regex-error", "catalog", "catalog.filters")
def compile_filter(log: logging.Logger, site: Site) -> None:
    try:
        re.compile(r"size-(S|M|L")
    except re.error:
        log.exception("Product filter is not a valid expression")


# Encodings, archives, binary formats


@failure("unicode-decode", "catalog", "catalog.import")
def decode_name(log: logging.Logger, site: Site) -> None:
    try:
        "상품명: 운동화".encode("euc-kr").decode("utf-8")
    except UnicodeDecodeError:
        log.exception("Product names are not UTF-8")


@failure("unicode-encode", "notification", "notification.sms")
def encode_text(log: logging.Logger, site: Site) -> None:
    try:
        "주문이 배송되었습니다".encode("latin-1")
    except UnicodeEncodeError:
        log.exception("SMS for customer %s can't be encoded", CUSTOMER)


@failure("base64-padding", "auth", "auth.tokens")
def decode_token(log: logging.Logger, site: Site) -> None:
    try:
        base64.b64decode("eyJhbGciOiJIUzI1NiJ9A")
    except binascii.Error:
        log.exception("Sign-in token is not base64")


@failure("struct-unpack", "payment-api", "payments.terminal")
def unpack_frame(log: logging.Logger, site: Site) -> None:
    try:
        struct.unpack(">IHH", b"\x00\x00\x00\x1c\x02")
    except struct.error:
        log.exception("Card terminal sent a frame that is too short")


@failure("gzip-corrupt", "report-worker", "reports.archive")
def open_archive(log: logging.Logger, site: Site) -> None:
    try:
        gzip.decompress(b"order;amount\n1;19.90\n")
    except gzip.BadGzipFile:
        log.exception("Archived report %s is not compressed", "{report}")


@failure("gzip-truncated", "report-worker", "reports.archive")
def open_truncated_archive(log: logging.Logger, site: Site) -> None:
    try:
        gzip.decompress(gzip.compress(b"order;amount\n", mtime=0)[:-9])
    except EOFError:
        log.exception("Archived report %s is cut off", "{report}")


@failure("zlib-corrupt", "cart-api", "cart.storage")
def inflate_cart(log: logging.Logger, site: Site) -> None:
    packed = bytearray(zlib.compress(b"A-100,2;B-200,1"))
    packed[-1] ^= 0xFF
    try:
        zlib.decompress(bytes(packed))
    except zlib.error:
        log.exception("Saved cart of customer %s is damaged", CUSTOMER)


@failure("zip-bad", "catalog", "catalog.images")
def open_images(log: logging.Logger, site: Site) -> None:
    try:
        zipfile.ZipFile(io.BytesIO(b"\x89PNG\r\n\x1a\n"))
    except zipfile.BadZipFile:
        log.exception("Product images did not arrive as a zip file")


@failure("pickle-corrupt", "recommendation", "recommendation.model")
def load_model(log: logging.Logger, site: Site) -> None:
    try:
        pickle.loads(pickle.dumps({"weights": [0.1, 0.2]}, protocol=4)[:-4])
    except pickle.UnpicklingError:
        log.exception("Recommendation model could not be loaded")


@failure("hmac-mismatch", "payment-api", "payments.webhooks")
def check_webhook(log: logging.Logger, site: Site) -> None:
    body = b'{"event":"charge.succeeded"}'
    sent = hmac.digest(b"old-secret", body, "sha256")
    try:
        if not hmac.compare_digest(sent, hmac.digest(b"new-secret", body, "sha256")):
            raise SignatureMismatch("signature of webhook charge.succeeded does not match")
    except SignatureMismatch:
        log.exception("Webhook was dropped")


@failure("token-expired", "auth", "auth.tokens")
def check_token(log: logging.Logger, site: Site) -> None:
    claims = json.loads(base64.urlsafe_b64decode("eyJzdWIiOiJzaG9wIiwiZXhwIjoxNzExOTI5NTk5fQ=="))
    expires = datetime.fromtimestamp(claims["exp"], UTC)
    try:
        if expires < datetime(2026, 10, 1, tzinfo=UTC):
            raise TokenExpired(f"token of {claims['sub']} expired at {expires.isoformat()}")
    except TokenExpired:
        log.exception("Sign-in of customer %s refused", CUSTOMER)


# Values that are not there, or not what they seemed


@failure("missing-key", "pricing", "pricing.engine")
def find_price(log: logging.Logger, site: Site) -> None:
    prices = {"A-100": Decimal("19.90")}
    try:
        prices[SKU]
    except KeyError:
        log.exception("No price for product")


@failure("key-error-chain", "pricing", "pricing.engine")
def find_fallback_price(log: logging.Logger, site: Site) -> None:
    prices: dict[str, Decimal] = {}
    try:
        try:
            prices[SKU]
        except KeyError:
            prices["default"]
    except KeyError:
        log.exception("Neither a price nor a default price for product %s", SKU)


@failure("attribute-none", "user-api", "users.profile")
def greet(log: logging.Logger, site: Site) -> None:
    customers: dict[str, Any] = {}
    try:
        _ = customers.get(CUSTOMER).display_name  # type: ignore[union-attr]
    except AttributeError:
        log.exception("Profile page failed")


@failure("type-error", "cart-api", "cart.totals")
def add_up(log: logging.Logger, site: Site) -> None:
    lines: list[Any] = [{"amount": 19}, {"amount": "20"}]
    try:
        sum(line["amount"] for line in lines)
    except TypeError:
        log.exception("Total of the cart could not be computed")


@failure("missing-argument", "notification", "notification.push")
def send_push(log: logging.Logger, site: Site) -> None:
    def push(device: str, *, title: str, text: str) -> None:
        raise NotImplementedError

    try:
        push("{id}", title="Shipped")  # type: ignore[call-arg]
    except TypeError:
        log.exception("Push notification to customer %s failed", CUSTOMER)


@failure("zero-division", "report-worker", "reports.conversion")
def conversion(log: logging.Logger, site: Site) -> None:
    visits, orders = 0, 3
    try:
        orders / visits
    except ZeroDivisionError:
        log.exception("Conversion rate could not be computed")


@failure("index-error", "shipping", "shipping.routes")
def next_stop(log: logging.Logger, site: Site) -> None:
    stops: list[str] = []
    try:
        stops[0]
    except IndexError:
        log.exception("Route for order %s has no stops", ORDER)


@failure("decimal-invalid", "billing", "billing.amounts")
def parse_amount(log: logging.Logger, site: Site) -> None:
    try:
        Decimal("19,90 €")
    except InvalidOperation:
        log.exception("Amount on the invoice is not a number")


@failure("int-parse", "order-api", "orders.api")
def parse_quantity(log: logging.Logger, site: Site) -> None:
    try:
        int("two of " + SKU)
    except ValueError:
        log.exception("Quantity is not a number")


@failure("datetime-parse", "billing", "billing.periods")
def parse_period(log: logging.Logger, site: Site) -> None:
    try:
        datetime.strptime("31.02.2026", "%d.%m.%Y")
    except ValueError:
        log.exception("Billing period has a day that does not exist")


@failure("naive-datetime", "pricing", "pricing.campaigns")
def campaign_active(log: logging.Logger, site: Site) -> None:
    try:
        _ = datetime(2026, 10, 1) < datetime(2026, 10, 1, tzinfo=UTC)
    except TypeError:
        log.exception("Campaign %s can't be checked: times with and without zone", "{campaign}")


@failure("leap-day", "user-api", "users.birthdays")
def next_birthday(log: logging.Logger, site: Site) -> None:
    try:
        date(2024, 2, 29).replace(year=2027)
    except ValueError:
        log.exception("Birthday coupon for customer %s failed", CUSTOMER)


@failure("enum-unknown", "billing", "billing.currency")
def parse_currency(log: logging.Logger, site: Site) -> None:
    try:
        Currency("BTC")
    except ValueError:
        log.exception("Currency is not supported")


@failure("dict-changed", "cart-api", "cart.cleanup")
def drop_empty(log: logging.Logger, site: Site) -> None:
    quantities = {"A-100": 0, "B-200": 1}
    try:
        for sku, quantity in quantities.items():
            if not quantity:
                del quantities[sku]
    except RuntimeError:
        log.exception("Empty lines could not be removed from the cart")


@failure("template-key", "notification", "notification.mail")
def fill_template(log: logging.Logger, site: Site) -> None:
    template = "Dear {first_name}, your parcel is on its way"
    try:
        template.format_map({"name": CUSTOMER})
    except KeyError:
        log.exception("Mail template and data don't match")


@failure("import-error", "report-worker", "reports.plugins")
def load_plugin(log: logging.Logger, site: Site) -> None:
    try:
        importlib.import_module("reports_plugin_excel")
    except ModuleNotFoundError:
        log.exception("Report plugin is not installed")


@failure("numpy-shapes", "recommendation", "recommendation.ranking")
def rank(log: logging.Logger, site: Site) -> None:
    try:
        np.zeros((3, 256)) @ np.zeros(1536)
    except ValueError:
        log.exception("Ranking failed: vectors have different dimensions")


@failure("numpy-singular", "recommendation", "recommendation.training")
def fit(log: logging.Logger, site: Site) -> None:
    try:
        np.linalg.inv(np.zeros((4, 4)))
    except np.linalg.LinAlgError:
        log.exception("Model could not be fitted")

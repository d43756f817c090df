// Keeps a page of the enrichment up to date: fetches the same page again and changes only what
// differs, so that focus, selection, what is unfolded and what is scrolled stay as they are.
(function () {
  "use strict";

  var page = document.getElementById("enrichment");
  if (!page || !page.dataset.live || !window.fetch) { return; }
  var every = Number(page.dataset.live) * 1000;
  var failures = 0;
  var timer = 0;

  function live(word, state) {
    var place = document.getElementById("enr-live");
    if (!place) { return; }
    place.classList.toggle("is-live", state === "live");
    place.classList.toggle("is-lost", state === "lost");
    document.getElementById("enr-live-word").textContent = word;
  }

  // What the reader has unfolded is the reader's, not the server's.
  function attributes(from, to) {
    Array.prototype.slice.call(from.attributes).forEach(function (each) {
      if (!to.hasAttribute(each.name) && each.name !== "open") { from.removeAttribute(each.name); }
    });
    Array.prototype.slice.call(to.attributes).forEach(function (each) {
      if (each.name !== "open" && from.getAttribute(each.name) !== each.value) {
        from.setAttribute(each.name, each.value);
      }
    });
  }

  function same(one, other) {
    return one.nodeType === other.nodeType && one.nodeName === other.nodeName &&
      (one.id || "") === (other.id || "");
  }

  function become(from, to) {
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) { from.nodeValue = to.nodeValue; }
      return;
    }
    if (from.isEqualNode(to)) { return; }
    attributes(from, to);
    var olds = Array.prototype.slice.call(from.childNodes);
    Array.prototype.slice.call(to.childNodes).forEach(function (wanted, place) {
      var old = olds[place];
      if (!old) {
        from.appendChild(wanted);
      } else if (same(old, wanted)) {
        become(old, wanted);
      } else {
        from.replaceChild(wanted, old);
      }
    });
    olds.slice(to.childNodes.length).forEach(function (old) {
      if (old.parentNode === from) { from.removeChild(old); }
    });
  }

  function update() {
    window.clearTimeout(timer);
    if (document.hidden) { return; }
    fetch(window.location.href, { credentials: "same-origin", cache: "no-store" })
      .then(function (answer) {
        if (!answer.ok || answer.redirected) {
          throw new Error(answer.status === 401 || answer.redirected ? "log in again" : "no answer");
        }
        return answer.text();
      })
      .then(function (text) {
        var fresh = new DOMParser().parseFromString(text, "text/html");
        var wanted = fresh.getElementById("enrichment");
        if (!wanted) { throw new Error("no answer"); }
        become(page, wanted);
        document.title = fresh.title;
        failures = 0;
        live("Live, as of", "live");
      })
      .catch(function (error) {
        failures += 1;
        live((error.message === "log in again" ? "Logged out" : "Flower does not answer") +
          "; this is as of", "lost");
      })
      .then(function () {
        timer = window.setTimeout(update, Math.min(every * Math.pow(2, failures), 60000));
      });
  }

  document.addEventListener("visibilitychange", function () {
    if (!document.hidden) { update(); }
  });
  live("Live, as of", "live");
  timer = window.setTimeout(update, every);
}());

// Drops the token from the address, so that it is neither bookmarked nor sent on. Runs before anything else.
"use strict";
(() => {
  const name = document.querySelector('meta[name="token-parameter"]').content.toLowerCase();
  const address = new URL(window.location.href);
  const found = [...new Set(address.searchParams.keys())].filter((key) => key.toLowerCase() === name);
  if (found.length > 0) {
    found.forEach((key) => address.searchParams.delete(key));
    window.history.replaceState(null, "", address.pathname + address.search + address.hash);
  }
})();

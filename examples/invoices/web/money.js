// Amounts: integers in the smallest unit of a currency, shown and typed as people write them.

const digits = (currency) => format(currency).resolvedOptions().maximumFractionDigits;

function format(currency) {
  return new Intl.NumberFormat("en", { style: "currency", currency, currencyDisplay: "code" });
}

/** 123456, "EUR" → "EUR 1,234.56". */
export const showMoney = (amount, currency) => format(currency).format(amount / 10 ** digits(currency));

/** 123456, "EUR" → "1234.56", for a field. */
export const editMoney = (amount, currency) => (amount / 10 ** digits(currency)).toFixed(digits(currency));

/** "1,234.56", "EUR" → 123456. Throws an Error that says what is wrong, for people. */
export function readMoney(text, currency) {
  const plain = text.trim().replace(/[\s',](?=\d{3}(\D|$))/g, "").replace(",", ".");
  const places = digits(currency);
  if (!/^\d+(\.\d+)?$/.test(plain)) throw new Error("Write an amount such as 1234.50.");
  if ((plain.split(".")[1] ?? "").length > places) throw new Error(places ? `${currency} has ${places} places after the point.` : `${currency} has no places after the point.`);
  const amount = Math.round(Number(plain) * 10 ** places);
  if (amount === 0) throw new Error("The amount must be more than nothing.");
  if (amount > 1e12) throw new Error("That is more than an invoice can be about.");
  return amount;
}

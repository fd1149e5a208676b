// Files as the server takes them, and back.

/** A file as a data: address. */
export function addressOf(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

export function blobOf(address) {
  const [head, body] = address.split(",");
  const bytes = Uint8Array.from(atob(body), (one) => one.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}

/** Let a button choose a file for `take`. */
export function fileButton(button, input, take) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    const [file] = input.files;
    if (file) await take(file);
    input.value = "";
  });
}

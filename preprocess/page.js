const list = document.getElementById("list");
if (list) {
  const [code, action, words] = ["code", "action", "words"].map(id => document.getElementById(id));
  const filter = () => {
    const sought = words.value.toLowerCase();
    let count = 0;
    for (const row of list.tBodies[0].rows) {
      row.hidden = (code.value && row.dataset.code !== code.value) || (action.value && row.dataset.action !== action.value)
        || !row.textContent.toLowerCase().includes(sought);
      count += !row.hidden;
    }
    document.getElementById("count").textContent = count;
  };
  for (const control of [code, action, words]) control.addEventListener("input", filter);
}

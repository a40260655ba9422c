// What moves on the pages. Each part finds the elements that it is about; without scripts the pages do the same by links and forms.
import { brush } from "./brush.js";
import { complete } from "./complete.js";
import { copy } from "./copy.js";
import { exporting } from "./export.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { zone } from "./zone.js";

const each = (selector, start) => document.querySelectorAll(selector).forEach(start);

each("[data-brush]", brush);
each("[data-complete]", complete);
each("[data-copy]", copy);
each("[data-live]", live);
each("[data-zone]", zone);
exporting(document.querySelector("[data-progress]"));
keys();

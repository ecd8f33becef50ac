local page = "pricing_view"
if event.event_name ~= page then
  return false -- before the filter reads the history, which is expensive
end

local seen = 1
for _, past in ipairs(history) do
  if past.event_name == page and past.timestamp >= visit.start_time then
    seen = seen + 1
  end
end
return seen == 3

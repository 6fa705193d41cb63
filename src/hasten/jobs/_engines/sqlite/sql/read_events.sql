-- Returns JSON: [[seq, body], …] of the rows from :first on. With :as_text, each body is a string that holds JSON.
SELECT json_group_array(json_array(seq, json(
    CASE WHEN :as_text THEN json_quote(body) WHEN json_valid(body) THEN body ELSE '[]' END))) FROM
    (SELECT seq, body FROM hasten_events WHERE queue = :queue AND seq >= :first ORDER BY seq LIMIT :limit)

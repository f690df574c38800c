"""The words both sides speak: ids, records, events, requests, codec. Imports nothing of ours."""

"""What an experiment brings: steps, raw formats, histograms. It knows no CouchDB and no farm."""

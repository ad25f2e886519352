import fc from 'fast-check'

// Else fast-check makes lists and texts of ten at most, however many a property allows.
fc.configureGlobal({ defaultSizeToMaxWhenMaxSpecified: true })

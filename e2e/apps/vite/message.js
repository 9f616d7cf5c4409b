export const message = 'before'

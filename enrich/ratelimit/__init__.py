"""How much may be asked for at a time: permits, the API's quota, the write throttle."""

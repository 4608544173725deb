"""`RedisHistory`: a history that several hubs on several machines share, in Redis or Valkey."""
